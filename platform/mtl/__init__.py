"""Optuna studies over multi-task minBERT trainings, every trial recorded in MLflow."""

from .common.telemetry import turn_off

turn_off()  # before any library is imported that would send something
