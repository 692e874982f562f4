"""lm-eval's tasks on our engines: found, built, asked, scored and summed."""
