"""Predictions of trained models, batch by batch on one device."""
