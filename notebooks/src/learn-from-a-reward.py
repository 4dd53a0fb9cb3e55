# %% [markdown]
# # Learn from a reward
#
# Every model in this course has learned from texts that people wrote. Often there is no such text, only a score: the answer was right, the
# program ran, the reader laughed.
#
# **Can a model learn from nothing but a score, and how much rank does that take?**
#
# After this lesson you can
#
# - turn a score into a gradient, and check that the gradient is right,
# - train a LoRA of rank 1 on texts that the model itself writes,
# - let a model cheat, and say what prevents cheating,
# - compare the trained model with the best possible model.
#
# You need *Adapt a language model* and *A prompt is an update of rank one*.

# %%
from dataclasses import replace

import numpy as np

import lora_np as lnp
from lora_np import language
from lora_np.plots import LORA, MUTED

# %% [markdown]
# ## On paper: one word
#
# Say a model chooses one of three words with the probabilities $p = (\tfrac12, \tfrac14, \tfrac14)$. They are the softmax of three numbers
# $z$, the **logits**. A model that chooses is called a **policy**, and the score of a choice is its **reward**. Here the rewards are
# $r = (0, 1, 0)$: only the second word earns anything. On average the model earns $J = \sum_i p_i r_i = \tfrac14$. To raise $J$ we need its
# gradient:
#
# $$
# \frac{\partial J}{\partial z_i} = p_i\,(r_i - J), \qquad \text{here } \left(-\tfrac18,\ \tfrac3{16},\ -\tfrac1{16}\right)
# $$
#
# This formula needs the reward of every word. For texts, that is impossible: there are $96^{24}$ texts of 24 characters. But we can draw
# one. If word $i$ is drawn, take its reward times the gradient of $\ln p_i$. The gradient of $\ln p_2$ is
# $(0, 1, 0) - p = (-\tfrac12, \tfrac34, -\tfrac14)$. The second word has probability $\tfrac14$ and reward 1, and the other two have
# reward 0. So the mean is $\tfrac14 (-\tfrac12, \tfrac34, -\tfrac14)$, exactly the gradient above.
#
# **The mean of the reward times the gradient of ln p is the gradient of the expected reward**<!-- proof: p times the gradient of ln p is
# the gradient of p -->, because $p\,\nabla \ln p = \nabla p$. This is **REINFORCE** (Williams, 1992). The model tries something, and
# rewarded choices become more likely.

# %%
p, r = np.array([1 / 2, 1 / 4, 1 / 4]), np.array([0.0, 1.0, 0.0])
exact = p * (r - p @ r)
means = sum(p[i] * r[i] * (np.eye(3)[i] - p) for i in range(3))
lifted = sum(p[i] * (r[i] + 7) * (np.eye(3)[i] - p) for i in range(3))
print("exact:       ", exact)
print("from draws:  ", means)
print("7 to each r: ", lifted)
assert np.allclose(exact, [-1 / 8, 3 / 16, -1 / 16])
assert np.allclose(exact, means)
assert np.allclose(exact, lifted)

# %% [markdown]
# The last line gives every word seven points more, and the mean does not change. (The probabilities add up to 1, so a gift to all words
# favours none.) But single draws change. If we subtract the mean reward of other draws, a **baseline**, a draw counts as good only if it is
# better than the others. This removes noise and nothing else.
#
# ## A reward for texts
#
# Our model reads eight characters from anywhere in a novel and adds 24 of its own. It earns one point for each s that begins a word. Nobody
# shows it a text with many such words.

# %%
PROMPT, WRITTEN, GROUP = 8, 24, 32  # characters, characters, texts in each step
base = lnp.freeze(language.load("austen"))
encode, novels = base.vocabulary.encode, language.read_text("austen-held-out")
LETTERS = encode("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'")


def write(model, n, rng, **settings):
    """n prompts from the novels, and how the model continues them: tokens (n, 32)."""
    settings = {"tokens": WRITTEN, "temperature": 1.0} | settings
    starts = rng.integers(len(novels) - PROMPT, size=n)
    prompts = [novels[i : i + PROMPT] for i in starts]
    return np.array(
        [encode(text) for text in language.generate(model, prompts, rng=rng, **settings)]
    )


def begins_with_s(tokens):
    """1 for each s that begins a word, and 0 for other characters: (n, 24)."""
    begins = ~np.isin(tokens[:, PROMPT - 1 : -1], LETTERS)
    return (begins & np.isin(tokens[:, PROMPT:], encode("sS"))).astype(float)


def no_e(tokens):
    """-1 for each e, and 0 for other characters."""
    return -np.isin(tokens[:, PROMPT:], encode("eE")).astype(float)


paper = np.array([encode("Mr. Bingley says so; she is sure")])
print("reward:", begins_with_s(paper).sum(), "for 'says', 'so', 'she', 'sure'")
print("without e:", no_e(paper).sum(), "for its three e")
assert begins_with_s(paper).sum() == 4
assert no_e(paper).sum() == -3

# %% [markdown]
# ## Seventeen lines
#
# In each step, the model writes 32 texts. Compared with the three words, two things are new:
#
# - A text has many choices, and a character cannot change what was earned before it. So each character is credited with what is earned
#   *from there on*, its reward to go. The baseline is the mean reward to go of the other 31 texts.
# - From every reward we subtract $\beta\,(\ln p - \ln p_0)$, where $p_0$ is the base's probability. On average, this is $\beta$ times the
#   Kullback-Leibler divergence from the base: the model pays for every character that the base would not have written.
#
# `log_probabilities` gives $\ln p$ of every token of a text, with gradients.


# %%
def log_p(model, tokens):
    """ln p of each character that was written, given all before it: (n, 24)."""
    return language.log_probabilities(model, tokens)[:, PROMPT - 1 :]


def estimate(ours, theirs, reward, beta):
    """A loss whose gradient is minus that of the expected reward, on average."""
    earned = reward - beta * (lnp.value(ours) - theirs)
    to_go = np.cumsum(earned[:, ::-1], axis=1)[:, ::-1]
    n = len(to_go)
    better = (to_go - to_go.mean(axis=0)) * n / (n - 1)  # than the mean of the others
    return -np.mean(better.astype(np.float32) * ours)


def reinforce(reward, *, beta, rank=1, lr=2.5e-3, steps=60, seed=0):
    rng = np.random.default_rng(seed)
    model = lnp.inject(base, rank=rank, alpha=32, targets="all-linear", rng=rng)
    run = lnp.training_run(lnp.Adam(lr=lr), model)
    for _ in range(steps):
        tokens = write(lnp.freeze(model), GROUP, rng)
        loss = estimate(log_p(model, tokens), log_p(base, tokens), reward(tokens), beta)
        loss.backward()
        run.step()
    return lnp.freeze(model)


# %% [markdown]
# ## Is the gradient right?
#
# With a wrong sign or index, the model might still train, only worse. So we let it write two characters after a given character, go through
# all $96^2$ texts, and compute the expected reward exactly, $\sum p\,(r - \beta \ln \tfrac{p}{p_0})$. Its gradient must be the mean of our
# estimate over all texts, each weighted with its probability. (We need no baseline here, because nothing is drawn.)

# %%
alphabet = np.arange(96)
first, second = (x.ravel() for x in np.meshgrid(alphabet, alphabet, indexing="ij"))
tokens = np.stack([np.full(96**2, encode(" ")[0]), first, second], axis=1)
rewards = np.stack([first == encode("s")[0], second == encode("s")[0]], axis=1).astype(float)
start = lnp.inject(base, rank=1, alpha=32, targets=["down_proj"], rng=0)
start = lnp.replace(  # B is zero at the start, and the model the base: move it away
    start, lnp.Tensor, lambda path, t: lnp.Tensor(t.data + np.float32(0.05))
)
theirs = language.log_probabilities(base, tokens).astype(float)


def gradient(loss_of):
    """The gradient of a loss, all entries in one vector."""
    loss_of(language.log_probabilities(start, tokens)).backward()
    found = []
    for _, leaf in lnp.trainable(start):
        found.append(leaf.grad.ravel().astype(float))
        leaf.grad = None
    return np.concatenate(found)


def expected(ours):
    """Minus the expected reward, exactly."""
    whole, apart = np.sum(ours, axis=1), np.sum(ours - theirs.astype(np.float32), axis=1)
    earned = rewards.sum(axis=1).astype(np.float32)
    return -np.sum(np.exp(whole) * (earned - np.float32(0.3) * apart))


def drawn(ours):
    """The mean of the estimate over all texts."""
    values = lnp.value(ours)
    earned = rewards - 0.3 * (values - theirs)
    to_go = np.stack([earned.sum(axis=1), earned[:, 1]], axis=1)
    p = np.exp(values.sum(axis=1, keepdims=True))
    return -np.sum((p * to_go).astype(np.float32) * ours)


exact, ours = gradient(expected), gradient(drawn)
off = np.linalg.norm(exact - ours) / np.linalg.norm(exact)
print(f"{len(exact):,} entries; relative difference below 1e-4: {off < 1e-4}")
assert off < 1e-4

# %% [markdown]
# ## Austen, in words that begin with s
#
# We train rank 1 on all 28 linear layers (9,344 parameters) for 60 steps, with $\beta = 0.3$. For the figure, texts are drawn at
# temperature 1, as in training. The samples, at 0.7, are easier to read:


# %% tags=["varies"]
def shown(model, **settings):
    texts = write(model, 3, np.random.default_rng(4), tokens=72, temperature=0.7)
    for text in texts:
        print("   ", " ".join(base.vocabulary.decode(text.tolist()).split()))


alliteration = reinforce(begins_with_s, beta=0.3, seed=3)
for name, model in [("before", base), ("after", alliteration)]:
    print(name)
    shown(model)


# %% alt="Share of words by the letter that they begin with, before and after. Before, s begins about one word in twelve, and t and a lead. After, about half of all words begin with s, and every other letter has become rarer." tags=["cover"]
def initials(model):
    """Share of words that begin with each letter, in 256 new texts."""
    tokens = write(model, 256, np.random.default_rng(1))
    begins = ~np.isin(tokens[:, PROMPT - 1 : -1], LETTERS)
    found = base.vocabulary.decode(tokens[:, PROMPT:][begins].tolist()).lower()
    counts = np.array([found.count(letter) for letter in "abcdefghijklmnopqrstuvwxyz"])
    return counts / counts.sum()


shares = {"before": initials(base), "after": initials(alliteration)}
axes = lnp.plots.axes()
places = np.arange(26)
for (name, share), color, offset in zip(shares.items(), [MUTED, LORA], [-0.2, 0.2], strict=True):
    axes.bar(places + offset, 100 * share, 0.4, color=color, label=name)
axes.set_xticks(places, "abcdefghijklmnopqrstuvwxyz")
axes.legend(frameon=False)
labels = axes.set(xlabel="first letter of a word", ylabel="percent of words")
before, after = (share[18] for share in shares.values())
assert 0.04 < before < 0.1
assert 0.4 < after < 0.65

# %% [markdown]
# Before training, about one word in twelve began with s. **After 60 steps, about half of all words do**<!-- shown: the shares before and
# after -->, and the text is still Austen's: 'she', 'so', 'sister', 'some'. No line of the training data showed that this is possible. The
# model found such words in what it knew.
#
# ## Cheating
#
# A reward is what we wrote down, not what we meant. The term with $\beta$ stands for the rest of what we meant: *and keep writing English*.
# Remove this term by setting $\beta = 0$. The new task is a text without the letter e:

# %% tags=["varies"]
hacked = reinforce(no_e, beta=0.0, steps=30, seed=3)
texts = write(hacked, 256, np.random.default_rng(1))
before = write(base, 256, np.random.default_rng(1))
print(f"e: {abs(no_e(texts)).mean():.1%} of characters, before {abs(no_e(before)).mean():.1%}")
shown(hacked)
assert -no_e(texts).mean() < 0.01

# %% [markdown]
# The score is nearly perfect, and the text is worthless: the model has found a few letters that never lead to an e. This is called **reward
# hacking**. **If the reward does not penalise divergence from the base, the text with the best score is not the best text**<!-- shown: the
# share of e and the texts above -->. The model did what the reward asked for.
#
# ## How good could it be?
#
# With $\beta > 0$ the best policy is known exactly (Korbak et al., 2022). It is the base, with every text made more likely by a factor of
# $e^{r / \beta}$. Its value per character is
#
# $$
# J^* = \frac{\beta}{24} \, \ln \operatorname{mean}\left(e^{r / \beta}\right) \quad \text{over texts of the base}
# $$
#
# On paper: if one in 20 of the base's texts has no e, and $\beta$ is so small that $e^{r / \beta}$ is nearly 0 for all others, then
# $J^* = \tfrac{0.1}{24} \ln \tfrac1{20} = -0.0125$ at $\beta = 0.1$. The best policy is *the base, given that it writes no e*. This policy
# has to plan: after *th* it has almost lost.
#
# A *ban* is a policy that needs no learning: it always sets the logit of e to minus 30. It never writes an e, but it does not plan. Here is
# $J$ for the base, the ban, the cheating model, and the best policy:

# %% tags=["varies"]
BETA = 0.1


def log_softmax(z):
    z = z - z.max(axis=-1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=-1, keepdims=True))


def measured(model, n=256):
    """Reward and divergence from the base, per character, over new texts."""
    tokens = write(model, n, np.random.default_rng(2))
    ours, theirs = (log_softmax(one(tokens[:, :-1])[:, PROMPT - 1 :]) for one in (model, base))
    return no_e(tokens).mean(), np.sum(np.exp(ours) * (ours - theirs), axis=-1).mean()


penalty = -30.0 * np.isin(alphabet, encode("eE"))
banned = replace(base, lm_head=lnp.Linear(base.lm_head.W, penalty.astype(np.float32)))
counts = -no_e(write(base, 512, np.random.default_rng(3))).sum(axis=1)
best = BETA / WRITTEN * np.log(np.mean(np.exp(-counts / BETA)))
J = {
    name: np.array([1, -BETA]) @ measured(one)
    for name, one in [("base", base), ("ban", banned), ("hacked", hacked)]
}
for name, value in (J | {"best possible": best}).items():
    print(f"{name:>13}: J = {value:.3f}")
assert J["hacked"] < J["base"] < J["ban"] < best
print(f"texts of the base without an e: {np.mean(counts == 0):.0%}")

# %% [markdown]
# Once the divergence counts again, the hacked model is worse than the base. And the ban is hard to beat. How far do 60 steps of rank 1 get,
# with the right $\beta$?

# %% tags=["varies"]
learned = reinforce(no_e, beta=BETA, seed=0)
J["rank 1, 60 steps"] = np.array([1, -BETA]) @ measured(learned)
share = (J["rank 1, 60 steps"] - J["base"]) / (best - J["base"])
print(f"J = {J['rank 1, 60 steps']:.3f}: {share:.0%} of the way from the base to the best")
print(f"the ban: {(J['ban'] - J['base']) / (best - J['base']):.0%}")
shown(learned)
assert 0.6 < share < 0.95
assert J["rank 1, 60 steps"] < J["ban"] + 0.002

# %% [markdown]
# More than three quarters of the way looks like a success. But **after 60 steps, rank 1 scores no better than a plain ban of the letter
# e**<!-- shown: J of rank 1 and of the ban -->. A model that never plans gets 81 % of the way, so the score does not show that anything
# more was learned. To get from the ban to the best policy, a model must plan. Before you call a score a success, ask what the simplest
# trick would score.
#
# ## How many bits does a score carry?
#
# A text consists of 24 choices, but its score is one number. A score tells at most the entropy of the number of e in a text, which we
# estimate from the base:

# %% tags=["varies"]
shares = np.bincount(counts.astype(int)) / len(counts)
entropy = -np.sum(shares[shares > 0] * np.log2(shares[shares > 0]))
print(
    f"a score: {entropy:.1f} bits; 60 steps of 32 texts: at most {60 * GROUP * entropy:,.0f} bits"
)
print(f"all that they can teach, which of 96 characters costs a point: {np.log2(96):.1f} bits")
parameters = sum(
    leaf.size for _, leaf in lnp.trainable(lnp.inject(base, rank=1, targets="all-linear"))
)
print(f"rank 1 has {parameters:,} parameters")
assert 2 < entropy < 2.6
assert parameters == 9_344 > 1_000 * np.log2(96)

# %% [markdown]
# Taken together, the scores of a run carry a few thousand bits at most, and what
# they teach takes far fewer bits to describe. **Capacity is not what
# limits rank 1 here**<!-- shown: bits of the task and parameters of rank 1 -->. Some argue from this that rank 1 must be enough for
# rewards.
#
# But what a rank can hold is one question, and what it can learn in a given number of steps is another. In the same 60 steps, rank 16
# passes the ban, as you can try below. A study in the documentation, *How much rank does a reward need?*, took a task whose best update is
# known. It found that the rank of that update decided, not the number of bits.
#
# ## The law
#
# - Reward times the gradient of $\ln p$ is, on average, the gradient of the expected reward. A baseline changes only its noise.
# - Each character is credited with what is earned from there on.
# - Subtracting $\beta$ times the divergence from the base keeps a model from cheating, and makes the best policy known.
# - Before you call a reward learned, compare it with a policy that needs no learning, such as a ban.
#
# ## What you can do now
#
# You can train a model on anything that you can score. Try this:
#
# - On paper: three words have $p = (\tfrac12, \tfrac14, \tfrac14)$ and rewards $(1, 1, 0)$. What is the gradient of $J$ for the three
#   logits?
#
#   <details><summary>Answer</summary>
#
#   $J = \tfrac34$, so $p_i (r_i - J) = (\tfrac18, \tfrac1{16}, -\tfrac3{16})$.
#
#   </details>
# - On paper: at $\beta = 0.1$, what is $J^*$ if half of the base's texts have no e, and the others have many?
#
#   <details><summary>Answer</summary>
#
#   $\tfrac{0.1}{24} \ln \tfrac12 = -0.0029$ per character. The best policy writes no e, at a divergence of $\ln 2$ for each text.
#
#   </details>
# - Train the text without e once more with `rank=16`. Does it pass the ban in the same 60 steps?
#
#   <details><summary>Answer</summary>
#
#   Yes, though not by much: $J$ is near $-0.025$, and the ban has $-0.027$ on the same prompts. Rank 16 writes an e now and then, but stays
#   closer to the base.
#
#   </details>
# - Reward words that begin with a letter that rarely begins a word, such as x. Why does the model learn so slowly?
#
#   <details><summary>Answer</summary>
#
#   The model is rewarded only for what it tries. If none of the 32 texts has such a word, all rewards are equal. Then every text is as good
#   as the mean of the others, and the gradient is zero.
#
#   </details>
#
# ## Further reading
#
# - R. Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement learning", *Machine Learning* 8, 229-256,
#   1992: REINFORCE, and why a baseline is allowed.
# - T. Korbak, E. Perez, C. Buckley, *RL with KL penalties is better viewed as Bayesian inference*,
#   [arXiv 2205.11275](https://arxiv.org/abs/2205.11275): the best policy.
# - L. Gao, J. Schulman, J. Hilton, *Scaling Laws for Reward Model Overoptimization*, [arXiv 2210.10760](https://arxiv.org/abs/2210.10760):
#   how far a policy may go before the score stops meaning anything.
# - J. Schulman and Thinking Machines Lab, *LoRA Without Regret*, 2025,
#   [thinkingmachines.ai/blog/lora](https://thinkingmachines.ai/blog/lora/): rank 1 for rewards, and the argument with bits.
