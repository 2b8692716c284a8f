"""Dialogues: agents that talk until they agree, and learn to say the same in fewer tokens.

    marks     how an answer stands in a message
    stopping  when a dialogue is over
    reward    what a dialogue was worth: task, tokens, readability

Method: Optima (arXiv 2410.08115). Nothing here imports torch; trainers say so in their own file.
"""
