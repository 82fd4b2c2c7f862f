"""Instruments that several test directories share."""
