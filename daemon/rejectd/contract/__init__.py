"""What is declared once: settings, requests, messages, and the schemas made from them. Knows no other room."""
