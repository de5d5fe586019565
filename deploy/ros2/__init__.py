"""Policy node, simulated robot as a node, and a session of both. Only here is rclpy imported."""
