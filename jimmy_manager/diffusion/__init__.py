"""Diffusion models: noise schedules, and the steps forth and back: ``from jimmy_manager.diffusion import *``."""

from jimmy_manager.diffusion.betas import beta_schedule
from jimmy_manager.diffusion.ddim import DDIM
from jimmy_manager.diffusion.ddpm import DDPM
from jimmy_manager.diffusion.diffusion_process import DiffusionProcess
from jimmy_manager.diffusion.noise_schedule import NoiseSchedule

__all__ = ["DDIM", "DDPM", "DiffusionProcess", "NoiseSchedule", "beta_schedule"]
