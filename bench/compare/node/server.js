// A usual product API: one Node process a core, a pool of connections each, and Redis beside, if REDIS has its port. It answers what catwalk answers.

const cluster = require('node:cluster');
const http = require('node:http');
const os = require('node:os');
const { Pool, types } = require('pg');

const { PORT, SOCKET_DIRECTORY, DATABASE, DATABASE_USER, PICTURES, REDIS } = process.env;
const KEPT_S = 3600;

// A picture of the generated catalogue is a path; whose server it is on is told from outside.
const absolute = (url) => (url?.startsWith('/') ? PICTURES + url : url);

// Numbers of the database as JSON has them.
types.setTypeParser(20, Number);

const start = () => {
  const pool = new Pool({ host: SOCKET_DIRECTORY, database: DATABASE, user: DATABASE_USER, max: 10 });
  const redis = REDIS ? new (require('ioredis'))({ port: Number(REDIS), enableAutoPipelining: true }) : null;
  const rows = async (name, text, id) => (await pool.query({ name, text, values: [id] })).rows;

  const product = async (id) => {
    const [[found], features] = await Promise.all([
      rows('product', 'select id, name, slogan, description, category, default_price, created_at, updated_at from products where id = $1', id),
      rows('features', 'select feature, value from features where product_id = $1 order by id', id)]);
    if (!found) return null;
    const { name, slogan, description, category, default_price, created_at, updated_at } = found;
    return { id: found.id, campus: 'hr-rfp', name, slogan, description, category, default_price, created_at, updated_at, features };
  };

  const styles = async (id) => {
    const [all, photos, skus] = await Promise.all([
      rows('styles', 'select id, name, original_price, sale_price, default_style from styles where product_id = $1 order by id', id),
      rows('photos', 'select p.style_id, p.thumbnail_url, p.url from photos p join styles s on s.id = p.style_id where s.product_id = $1 order by p.id', id),
      rows('skus', 'select k.style_id, k.id, k.quantity, k.size from skus k join styles s on s.id = k.style_id where s.product_id = $1 order by k.id', id)]);
    const of = (list, style) => list.filter((each) => each.style_id === style.id);
    const results = all.map((style) => {
      const pictures = of(photos, style).map((photo) => ({ thumbnail_url: absolute(photo.thumbnail_url), url: absolute(photo.url) }));
      const sizes = of(skus, style).map(({ id: sku, quantity, size }) => [sku, { quantity, size }]);
      return {
        style_id: style.id, name: style.name, original_price: style.original_price, sale_price: style.sale_price, 'default?': style.default_style,
        photos: pictures.length ? pictures : [{ thumbnail_url: null, url: null }],
        skus: sizes.length ? Object.fromEntries(sizes) : { null: { quantity: null, size: null } },
      };
    });
    return { product_id: String(id), results };
  };

  const related = async (id) => (await rows('related', 'select related_product_id from related where current_product_id = $1 order by id', id)).map((row) => row.related_product_id);

  const MAKERS = { '': product, '/styles': styles, '/related': related };
  const make = async (path) => {
    const [, id, kind] = /^\/products\/(\d+)(|\/styles|\/related)$/.exec(path) ?? [];
    const made = id && (await MAKERS[kind](Number(id)));
    return made ? JSON.stringify(made) : null;
  };

  const answer = async (path) => {
    const kept = redis && (await redis.get(path));
    if (kept) return kept;
    const made = await make(path);
    if (made && redis) redis.set(path, made, 'EX', KEPT_S);
    return made;
  };

  http.createServer(async (request, reply) => {
    try {
      const body = await answer(request.url);
      reply.writeHead(body ? 200 : 404, { 'Content-Type': 'application/json; charset=utf-8', 'Cache-Control': `max-age=${KEPT_S}`, 'Content-Length': Buffer.byteLength(body ?? '') });
      reply.end(body ?? '');
    } catch (error) {
      reply.writeHead(500).end(error.message);
    }
  }).listen(Number(PORT), '127.0.0.1');
};

if (cluster.isPrimary) os.cpus().forEach(() => cluster.fork());
else start();
