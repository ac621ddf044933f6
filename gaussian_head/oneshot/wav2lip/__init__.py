"""Wav2Lip: new lips for a video or a picture, so that it says what is heard."""
