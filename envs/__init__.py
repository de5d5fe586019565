"""Simulated tasks, scripted experts, evaluation and collection. Imports data, never torch."""

import os

import gymnasium

# MuJoCo chooses its graphics library when it is imported. Without a screen OSMesa always works.
os.environ.setdefault("MUJOCO_GL", "osmesa")

gymnasium.register(id="Prise/Pry-v0", entry_point="envs.pry.env:PryEnv")
gymnasium.register(id="Prise/MetaWorld-v0", entry_point="envs.metaworld.env:MetaWorldEnv")
