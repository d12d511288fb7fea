"""The Flask side: routes declared once, their schemas and pages."""
