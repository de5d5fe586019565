"""Engines that run a policy's two networks in place of eager torch, one file each."""
