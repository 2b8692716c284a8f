"""Dialogues: agents that talk until they agree, and learn to say the same in fewer tokens.

    marks     how an answer stands in a message
    stopping  when a dialogue is over
    reward    what a dialogue was worth: task, tokens, readability
    formats   ways to write a message
    search    which of them works, without training anything
    play      dialogues of a real team
    tree      many dialogues about one item
    select    which dialogues, and which pairs of messages, are learned from

Method: Optima (arXiv 2410.08115). Nothing here imports torch; trainers say so in their own file.
"""
