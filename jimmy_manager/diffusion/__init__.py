"""Diffusion models: noise schedules, and the steps forth and back."""
