"""Policy to robot, in time: chunks, controllers, safety, the real-time loop and robots."""
