"""The synthetic Arctic: relief, slumps, weather and sensors."""
