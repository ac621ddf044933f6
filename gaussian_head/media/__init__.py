"""Pictures, video, sound and mel features: with data_utils' image processing, the only users of OpenCV and PyAV."""
