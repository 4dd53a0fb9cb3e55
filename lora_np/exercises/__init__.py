"""Provide exercises: statements, laws that check answers, and the functions for students."""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.exercises.blanks import (
        BLANK as BLANK,
        Puzzle as Puzzle,
        Scene as Scene,
        ending as ending,
        puzzle as puzzle,
        puzzle_lines as puzzle_lines,
        puzzle_script as puzzle_script,
        puzzles as puzzles,
        solved as solved,
    )
    from lora_np.exercises.catalogue import (
        Solution as Solution,
        check as check,
        exercise as exercise,
        lessons as lessons,
        other_seeds as other_seeds,
        solution as solution,
    )
    from lora_np.exercises.forbidden import Rules as Rules
    from lora_np.exercises.handouts import (
        heading as heading,
        notebook as notebook,
        notebook_text as notebook_text,
        start as start,
    )
    from lora_np.exercises.running import (
        HEADER as HEADER,
        Reply as Reply,
        call as call,
        run_cell as run_cell,
    )
    from lora_np.exercises.testing import (
        SEEDS as SEEDS,
        Exercise as Exercise,
        Law as Law,
        Lesson as Lesson,
        Outcome as Outcome,
        Verdict as Verdict,
        judge as judge,
        plural as plural,
    )
    from lora_np.exercises.values import (
        Value as Value,
        WireError as WireError,
        decode as decode,
        encode as encode,
    )
