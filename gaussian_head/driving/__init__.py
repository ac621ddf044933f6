"""What moves a head: driving sequences, and what predicts from sound the landmarks that speech moves."""
