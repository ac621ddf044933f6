"""What moves a head: driving sequences, and the regression from sound to the landmarks that speech moves."""
