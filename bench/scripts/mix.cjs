// The shop's mixture, for what runs JavaScript: kinds of requests, each with its weight of a thousand.
const harmonic = (products) => Math.log(products) + 0.5772;

/** `products`: how many there are; `random`: a number from 0 to 1. */
exports.ask = (products, random = Math.random) => {
  const rank = () => Math.floor(Math.exp(random() * harmonic(products) - 0.5772));
  const product = () => ((rank() * 1000000007) % products) + 1;
  const below = (n) => Math.floor(random() * n);
  const kinds = [
    [300, () => ['GET', `/products/${product()}`]],
    [180, () => ['GET', `/products/${product()}/styles`]],
    [90, () => ['GET', `/products/${product()}/related`]],
    [100, () => ['GET', `/products/${products - below(Math.max(Math.floor(products / 10), 1))}`]],
    [60, () => ['GET', `/products?count=5&page=${1 + below(Math.max(1, Math.min(100, Math.floor(products / 5))))}`]],
    [110, () => ['GET', `/reviews?sort=relevant&product_id=${product()}`]],
    [70, () => ['GET', `/reviews/meta?product_id=${product()}`]],
    [75, () => ['GET', `/qa/questions?product_id=${product()}`]],
    [5, () => ['PUT', `/reviews/${product()}/helpful`]],
    [5, () => ['POST', '/cart', { sku_id: 1 }]],
    [5, () => ['POST', '/interactions', { element: 'button', widget: 'bench', time: 'now' }]],
  ];
  let dice = random() * 1000;
  for (const [weight, make] of kinds) {
    dice -= weight;
    if (dice < 0) return make();
  }
  return kinds[0][1]();
};
