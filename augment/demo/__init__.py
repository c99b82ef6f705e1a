"""What only the demo needs: small stand-ins for the published weights, and its closing page."""
