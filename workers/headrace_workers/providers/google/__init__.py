"""The wire format of Google Gemini, generateContent."""
