"""`prise demo`: everything from demonstrations to a report, in steps that can be interrupted."""

from deploy.demo.pipeline import run

__all__ = ["run"]
