// The shop's mixture for k6, at a constant rate whatever is answered.
import http from 'k6/http';
import { check } from 'k6';
import { ask } from './mix.cjs';

const [url, products] = [__ENV.URL || 'http://127.0.0.1:8080', Number(__ENV.PRODUCTS || 10000)];

export const options = {
  scenarios: {
    shop: { executor: 'constant-arrival-rate', rate: Number(__ENV.RATE || 1000), timeUnit: '1s', duration: __ENV.DURATION || '30s', preAllocatedVUs: 100, maxVUs: 1000 },
  },
  thresholds: { http_req_failed: ['rate<0.001'], http_req_duration: ['p(99)<50'] },
};

// A vote may be for a review that the catalogue does not have.
const [found, foundOrNot] = [http.expectedStatuses({ min: 200, max: 399 }), http.expectedStatuses({ min: 200, max: 399 }, 404)];

export default () => {
  const [method, path, body] = ask(products);
  const reply = http.request(method, `${url}${path}`, body ? JSON.stringify(body) : null, { headers: { 'Content-Type': 'application/json' }, tags: { name: path.replace(/\d+/g, ':id') }, responseCallback: method === 'PUT' ? foundOrNot : found });
  check(reply, { 'it is answered': ({ status }) => status < 400 || status === 404 });
};
