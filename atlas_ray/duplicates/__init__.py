"""Pictures that several products have: fingerprints, groups, and the run over a catalogue."""
