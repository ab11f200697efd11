"""The shop's mixture for locust; PRODUCTS is how many there are."""

import math
import os
import random

from locust import FastHttpUser, constant_throughput, task

PRODUCTS = int(os.environ.get("PRODUCTS", "10000"))
HARMONIC = math.log(PRODUCTS) + 0.5772


def product():
    """Popular ones more often (Zipf, exponent 1), scattered over the ids."""
    rank = int(math.exp(random.random() * HARMONIC - 0.5772))
    return rank * 1000000007 % PRODUCTS + 1


class Shopper(FastHttpUser):
    """Ten requests a second."""

    wait_time = constant_throughput(10)

    @task(300)
    def show_product(self):
        self.client.get(f"/products/{product()}", name="/products/:id")

    @task(180)
    def show_styles(self):
        self.client.get(f"/products/{product()}/styles", name="/products/:id/styles")

    @task(90)
    def show_related(self):
        self.client.get(f"/products/{product()}/related", name="/products/:id/related")

    @task(100)
    def show_newest(self):
        newest = PRODUCTS - random.randrange(max(PRODUCTS // 10, 1))
        self.client.get(f"/products/{newest}", name="/products/:id, the last 10 %")

    @task(60)
    def list_products(self):
        page = random.randint(1, max(1, min(100, PRODUCTS // 5)))
        self.client.get(f"/products?count=5&page={page}", name="/products")

    @task(110)
    def list_reviews(self):
        self.client.get(f"/reviews?sort=relevant&product_id={product()}", name="/reviews")

    @task(70)
    def show_meta(self):
        self.client.get(f"/reviews/meta?product_id={product()}", name="/reviews/meta")

    @task(75)
    def list_questions(self):
        self.client.get(f"/qa/questions?product_id={product()}", name="/qa/questions")

    @task(5)
    def vote(self):
        with self.client.put(f"/reviews/{product()}/helpful", name="/reviews/:id/helpful", catch_response=True) as reply:
            if reply.status_code == 404:
                reply.success()

    @task(5)
    def add_to_cart(self):
        self.client.post("/cart", json={"sku_id": 1})

    @task(5)
    def interact(self):
        self.client.post("/interactions", json={"element": "button", "widget": "locust", "time": "now"})
