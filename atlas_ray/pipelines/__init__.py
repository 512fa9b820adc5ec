"""Chains of stages that belong to one command: shop pages to a catalogue with pictures, duplicates to a new split."""
