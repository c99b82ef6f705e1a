"""What moves in a clip: motion fields from the video encoder, and the trajectories that they link."""
