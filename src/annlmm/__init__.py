from annlmm.model.lmm import LinearMixedModel
