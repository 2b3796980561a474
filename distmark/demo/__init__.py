"""The demo: sample brands and people, a simulated audience, and the run from enrolling to results."""
