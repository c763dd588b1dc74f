"""The synthetic Arctic: terrain, slumps, weather and sensors of an endless country."""
