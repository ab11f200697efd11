//! The table of contents: every path, its methods, its handler.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::problem::Problem;
use crate::api::{admin, health, pictures, products, questions, reply, reviews, Site};
use crate::cache::Kind;

/// Where a path leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'p> {
    Products,
    Product(&'p str),
    Styles(&'p str),
    Related(&'p str),
    /// Of a product in the path, or in the query.
    Reviews(Option<&'p str>),
    Meta(Option<&'p str>),
    Questions(Option<&'p str>),
    Answers(&'p str),
    AdminProduct(&'p str),
    Picture(&'p str),
    Healthz,
    Readyz,
    Metrics,
    Nowhere,
}

/// Methods of a route.
fn methods(route: Route<'_>) -> &'static str {
    match route {
        Route::AdminProduct(_) => "PATCH, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    }
}

/// Segments of the longest path.
const SEGMENTS_MAX: usize = 5;

/// Finds the route of a path, with or without its base (`/api`, `/api/fec2/{campus}`) and trailing slash.
pub fn find(path: &str) -> Route<'_> {
    let path = strip_base(path.strip_suffix('/').unwrap_or(path));
    let Some(path) = path.strip_prefix('/') else { return Route::Nowhere };
    let mut segments = [""; SEGMENTS_MAX];
    let mut count = 0;
    for segment in path.split('/') {
        if count == SEGMENTS_MAX {
            return Route::Nowhere;
        }
        segments[count] = segment;
        count += 1;
    }
    match segments[..count] {
        ["products"] | ["products", "list"] => Route::Products,
        ["products", id] => Route::Product(id),
        ["products", id, "styles"] => Route::Styles(id),
        ["products", id, "related"] => Route::Related(id),
        ["reviews"] => Route::Reviews(None),
        ["reviews", product, "list"] => Route::Reviews(Some(product)),
        ["reviews", "meta"] => Route::Meta(None),
        ["reviews", product, "meta"] => Route::Meta(Some(product)),
        ["qa", "questions"] => Route::Questions(None),
        ["qa", product] => Route::Questions(Some(product)),
        ["qa", "questions", id, "answers"] | ["qa", id, "answers"] => Route::Answers(id),
        ["admin", "products", id] => Route::AdminProduct(id),
        ["pictures", name] => Route::Picture(name),
        ["healthz"] => Route::Healthz,
        ["readyz"] => Route::Readyz,
        ["metrics"] => Route::Metrics,
        _ => Route::Nowhere,
    }
}

fn strip_base(path: &str) -> &str {
    let Some(rest) = path.strip_prefix("/api") else { return path };
    if let Some(campus) = rest.strip_prefix("/fec2/") {
        return campus.find('/').map_or(path, |at| &campus[at..]);
    }
    if rest.starts_with('/') {
        rest
    } else {
        path
    }
}

/// Answers one request.
pub fn answer(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>) {
    let path = req.path();
    dispatch(site, req, rsp, find(&path), &path);
}

fn dispatch(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, route: Route<'_>, path: &str) {
    let is_admin = matches!(route, Route::AdminProduct(_));
    // Without a token in the configuration there are no such routes.
    let route = if is_admin && !site.policy.has_admin() { Route::Nowhere } else { route };
    let allow = methods(route);
    match req.method() {
        "GET" | "HEAD" if !is_admin => {}
        "PATCH" if is_admin && route != Route::Nowhere => {}
        "OPTIONS" if route != Route::Nowhere || path == "*" => {
            return reply::write_options(site, req, rsp, allow)
        }
        _ if route == Route::Nowhere => return Problem::no_route().write(site, req, rsp),
        _ => {
            rsp.header(&format!("Allow: {allow}"));
            return Problem::method_not_allowed(allow).write(site, req, rsp);
        }
    }
    let admitted =
        if is_admin { site.policy.admits_admin(req) } else { is_open(route) || site.policy.admits(req) };
    if !admitted {
        rsp.header("WWW-Authenticate: Bearer");
        return Problem::unauthorized().write(site, req, rsp);
    }
    match route {
        Route::Products => products::list(site, req, rsp),
        Route::Product(id) => products::show(site, req, rsp, Kind::Product, id),
        Route::Styles(id) => products::show(site, req, rsp, Kind::Styles, id),
        Route::Related(id) => products::show(site, req, rsp, Kind::Related, id),
        Route::Reviews(product) => reviews::list(site, req, rsp, product),
        Route::Meta(product) => reviews::show_meta(site, req, rsp, product),
        Route::Questions(product) => questions::list(site, req, rsp, product),
        Route::Answers(question) => questions::list_answers(site, req, rsp, question),
        Route::AdminProduct(id) => admin::change_product(site, req, rsp, id),
        Route::Picture(name) => pictures::show(site, req, rsp, name),
        Route::Healthz => health::alive(rsp),
        Route::Readyz => health::ready(site, rsp),
        Route::Metrics => health::metrics(site, rsp),
        Route::Nowhere => Problem::no_route().write(site, req, rsp),
    }
}

/// Routes that no token guards: an `<img>` can't send one, nor can a load balancer's check.
fn is_open(route: Route<'_>) -> bool {
    matches!(route, Route::Picture(_) | Route::Healthz | Route::Readyz | Route::Metrics | Route::Nowhere)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn product_routes_with_every_base() {
        for base in ["", "/api", "/api/fec2/hr-rfp", "/api/fec2/hratx"] {
            for slash in ["", "/"] {
                let path = |rest: &str| format!("{base}{rest}{slash}");
                assert_eq!(find(&path("/products")), Route::Products);
                assert_eq!(find(&path("/products/1")), Route::Product("1"));
                assert_eq!(find(&path("/products/1/styles")), Route::Styles("1"));
                assert_eq!(find(&path("/products/1/related")), Route::Related("1"));
            }
        }
    }

    #[test]
    fn everything_else_leads_nowhere() {
        for path in [
            "",
            "/",
            "/product",
            "/productsx",
            "/products/1/styles/2",
            "/api",
            "/api/fec2/x",
            "/apix/products",
            "/pictures/a/b",
        ] {
            assert_eq!(find(path), Route::Nowhere, "{path}");
        }
    }
}
