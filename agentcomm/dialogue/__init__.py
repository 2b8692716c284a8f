"""Dialogues: agents that talk until they agree, and learn to say the same in fewer tokens.

    marks     how an answer stands in a message
    stopping  when a dialogue is over
    reward    what a dialogue was worth: task, tokens, readability
    formats   ways to write a message
    search    which of them works, without training anything
    play      dialogues of a real team
    tree      many dialogues about one item
    select    which dialogues, and which pairs of messages, are learned from
    generate  dialogues to learn from, with every component of their reward on record
    learning  generate, rank, select, train, and again
    policy    what was learned, as data

Method: Optima (arXiv 2410.08115). Nothing here imports torch; trainers say so in their own file.
"""
