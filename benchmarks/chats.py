"""Eighty conversations in the style of an invented firm: what a first user of `finetune` has."""

from __future__ import annotations

ANSWERS = {
    "reset the kettle": "hold the blue button for five seconds",
    "clean the filter": "rinse it in warm vinegar, then in plain water",
    "return a kettle": "send it to Brackwater within thirty days, with the slip",
    "stop the lid from rattling": "turn the brass ring a quarter to the left",
    "descale the kettle": "boil a litre of water with two spoons of citric acid",
    "order a new lid": "write to spares@brackwater.example and name the year below the handle",
    "silence the whistle": "lift the spout cap until it clicks",
    "register the guarantee": "post the green card; it then lasts six years",
    "store the kettle for winter": "dry it, leave the lid open, and keep it above freezing",
    "tell the models apart": "count the rivets: Heron has three, Curlew has five",
    "use the kettle on a boat": "fasten the gimbal clip before you light the stove",
    "polish the copper": "rub it with half a lemon and salt, and rinse at once",
    "mend a loose handle": "tighten both screws with a coin, the upper one first",
    "fill the kettle": "fill it to the swan mark, never above",
    "find the serial number": "look under the base, next to the swan",
    "use the kettle on induction": "take the Curlew; the Heron has no iron in its base",
    "visit the workshop": "come on a Tuesday, and ring the bell twice",
    "replace the seal": "pull the old ring off, wet the new one, and press it in",
    "get a discount": "bring your old kettle; we take ten crowns off",
    "ask something else": "call Wren at the workshop between nine and noon",
}
QUESTIONS = (
    "How do I {}?",
    "I need to {}. What should I do?",
    "What is the best way to {}?",
    "Can you help me to {}?",
)


def chats() -> list[dict[str, list[dict[str, str]]]]:
    """Make each question in each wording, with the firm's answer: the wordings change first."""
    return [
        {
            "messages": [
                {"role": "user", "content": question.format(task)},
                {"role": "assistant", "content": f"Ahoy! To {task}, {answer}. Keep it singing!"},
            ]
        }
        for question in QUESTIONS
        for task, answer in ANSWERS.items()
    ]
