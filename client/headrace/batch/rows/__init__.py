"""Reads the input of a batch job: files of OpenAI's Batch API, short lines, tables and text, each line or record as a row."""
