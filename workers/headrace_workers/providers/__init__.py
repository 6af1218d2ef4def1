"""The wire formats: one folder each. ``shared/wire_format.py`` is their interface, ``registry.py`` lists them.

``openai_choice.py`` chooses between OpenAI's two.
"""
