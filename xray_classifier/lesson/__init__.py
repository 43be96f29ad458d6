"""What a course on deep learning draws on the blackboard, measured on a run of one's own."""
