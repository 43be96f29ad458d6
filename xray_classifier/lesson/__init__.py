"""What a course on deep learning draws on the blackboard, computed from real networks and runs."""
