"""Candidates that might predict steerability: what they are called, and what is published of them."""

WORDS = {
    "mean_cosine": "cosine agreement (of each training pair's difference with the vector)",
    "d_prime": "held-out d′ (how far apart the two answers lie along the vector, in standard deviations)",
    "auc": "held-out AUC (how well the vector tells the two answers apart)",
    "norm_ratio": "norm ratio (the vector's length against that of the activations)",
    "unembedding_alignment": "alignment with A − B (size of the cosine of the vector with the unembedding of A minus "
    "that of B)",
}
DRAWN = ("mean_cosine", "d_prime")
OTHERS = "Braun et al. (arXiv 2505.22637) on Llama-2-7b; Bas and Novak (arXiv 2511.18284) find no such relation"
REASONS = {"mean_cosine": "other datasets (both in-sample)", "d_prime": "other datasets, and ours is held out"}
