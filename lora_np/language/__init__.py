"""Language models in plain NumPy: load decoders of many families, adapt them, and generate text.

Paths in a model are the module names of transformers, so `lora_np.inject`,
`lora_np.adapters.save` and `attach` need no mapping of names.
"""

from lora_np.lazy import on_demand

with on_demand(globals()):
    from lora_np.language.adapting import (
        Adapted as Adapted,
        FinetuneSettings as FinetuneSettings,
        finetune as finetune,
        forecast as forecast,
    )
    from lora_np.language.baking import Baked as Baked, BakeSettings as BakeSettings, bake as bake
    from lora_np.language.chatting import Chat as Chat
    from lora_np.language.data import Data as Data, read_data as read_data
    from lora_np.language.decoder import (
        LanguageModel as LanguageModel,
        build as build,
        composed_operations as composed_operations,
    )
    from lora_np.language.evaluating import Evaluation as Evaluation, evaluate as evaluate
    from lora_np.language.generation import (
        Sampling as Sampling,
        answer as answer,
        generate as generate,
    )
    from lora_np.language.measuring import (
        bits_to_learn as bits_to_learn,
        grams as grams,
        likelihood as likelihood,
    )
    from lora_np.language.packing import (
        log_probabilities as log_probabilities,
        token_loss as token_loss,
        windows as windows,
    )
    from lora_np.language.storing import (
        load as load,
        located_adapter as located_adapter,
        read_text as read_text,
        save as save,
        shipped as shipped,
    )
    from lora_np.language.vocabulary import (
        Characters as Characters,
    )
