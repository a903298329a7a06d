"""Experts that move between ranks while layers run: what travels, when tables change, and why."""
