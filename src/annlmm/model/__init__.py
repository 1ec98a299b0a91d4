"""The linear mixed model on arrays: no AnnData, no scanpy, no plotting.

    y ~ N(X β, σ² K + τ² I),   K = U S Uᵀ,   γ = σ²/τ²,   h² = γ/(1+γ)

Data flows one way: `eigen` makes a `Basis` of K, `design` an orthonormal basis of X, `space` joins the two into the REML
space, `profile` is the one objective there, `search` finds its global optimum, `null` reports the fit, `association`
tests features at its γ.
"""
