"""Two-stage recommender: two-tower retrieval through FAISS, cross-encoder re-ranking over text."""
