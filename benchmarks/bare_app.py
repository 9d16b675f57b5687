"""The least that a FastAPI endpoint of this shape can do: constants through a pydantic model."""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel


class TopItems(BaseModel):
    """What is answered."""

    user_id: int
    top_items: list[int]


app = FastAPI()


@app.get("/recommend")
async def recommend(user_id: int, top_k: int = 10) -> TopItems:
    """Ten constants."""
    return TopItems(user_id=user_id, top_items=list(range(top_k)))


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning")
