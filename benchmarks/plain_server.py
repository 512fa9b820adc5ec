"""What one writes without Ray: FastAPI, PyTorch, a picture at a time. `serve_load` measures the endpoint against it."""

import argparse
import asyncio
import json
import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI, Request, Response
from starlette.datastructures import UploadFile

from atlas_ray.artifacts import load_artifact
from atlas_ray.modalities.pictures import decode
from atlas_ray.modalities.products import Products
from atlas_ray.prediction.paths import PathPredictor, PredictorConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    predictor = PathPredictor(load_artifact(options.model), PredictorConfig(batch_size=1, precision=options.precision))
    thread = ThreadPoolExecutor(1)  # one model, one picture at a time
    for _ in range(3):
        predictor.infer(
            Products(torch.zeros((1, 3, predictor.image_size_px, predictor.image_size_px), dtype=torch.uint8))
        )
    api = FastAPI()

    def categorize(content: bytes) -> dict[str, Any]:
        pixels = decode(content, predictor.image_size_px).pixels
        row: dict[str, Any] = predictor.predict(Products(pixels[None])).to_pylist()[0]
        return row

    @api.post("/v1/categorize")
    async def answer(request: Request) -> Response:
        async with request.form() as form:
            files = [await file.read() for _, file in form.multi_items() if isinstance(file, UploadFile)]
        loop = asyncio.get_running_loop()
        results = [await loop.run_in_executor(thread, categorize, content) for content in files]
        return Response(json.dumps({"results": results}), media_type="application/json")

    uvicorn.run(api, host="127.0.0.1", port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
