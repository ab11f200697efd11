//! The table of contents: every path, its methods, its handler.
//! Runs in: worker.

use may_minihttp::{Request, Response};

use crate::api::admin::AdminRoute;
use crate::api::problem::Problem;
use crate::api::web::Page;
use crate::api::{admin, cart, health, images, pictures, products, questions, reply, reviews, web, Site};
use crate::cache::Kind;
use crate::db::writes::{Opinion, Vote};
use crate::front::Front;
use crate::metrics::RouteGroup;

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
    ReviewsOf(&'p str),
    Vote(Opinion, Vote, &'p str),
    Cart,
    Interactions,
    Images,
    RecommendedImage,
    Admin(AdminRoute<'p>),
    Picture(&'p str),
    Web(Page),
    Healthz,
    Readyz,
    Nowhere,
}

/// Every path, and where `:id` stands for what differs; those that only older clients know, in `ALIASES`.
pub const PATHS: &[&str] = &[
    "/products",
    "/products/:id",
    "/products/:id/styles",
    "/products/:id/related",
    "/reviews",
    "/reviews/meta",
    "/reviews/:id/helpful",
    "/reviews/:id/report",
    "/qa/questions",
    "/qa/questions/:id/answers",
    "/qa/questions/:id/helpful",
    "/qa/questions/:id/report",
    "/qa/answers/:id/helpful",
    "/qa/answers/:id/report",
    "/cart",
    "/interactions",
    "/api/images",
    "/api/recommendedImage",
    "/admin/products",
    "/admin/products/:id",
    "/admin/products/:id/features",
    "/admin/features/:id",
    "/admin/products/:id/related/:other",
    "/admin/styles/:id",
    "/admin/styles/:id/photos",
    "/admin/photos/:id",
    "/admin/skus/:id",
    "/admin/reviews/:id/hide",
    "/admin/reviews/:id/show",
    "/admin/questions/:id/hide",
    "/admin/questions/:id/show",
    "/admin/answers/:id/hide",
    "/admin/answers/:id/show",
    "/admin/purge",
    "/pictures/:name",
    "/openapi.json",
    "/docs",
    "/healthz",
    "/readyz",
];

/// Paths of the older dialect, each with the one that it is another name of.
pub const ALIASES: &[(&str, &str)] = &[
    ("/products/list", "/products"),
    ("/reviews/:id/list", "/reviews"),
    ("/reviews/:id/meta", "/reviews/meta"),
    ("/reviews/:id", "/reviews"),
    ("/reviews/helpful/:id", "/reviews/:id/helpful"),
    ("/qa/:id", "/qa/questions"),
    ("/qa/:id/answers", "/qa/questions/:id/answers"),
    ("/qa/question/:id/helpful", "/qa/questions/:id/helpful"),
    ("/qa/answer/:id/helpful", "/qa/answers/:id/helpful"),
];

/// Methods of a route.
pub fn methods(route: Route<'_>) -> &'static str {
    match route {
        Route::Admin(route) => admin::methods(route),
        Route::Reviews(None) | Route::Questions(None) | Route::Answers(_) | Route::Cart => {
            "GET, HEAD, POST, OPTIONS"
        }
        Route::ReviewsOf(_) | Route::Interactions => "POST, OPTIONS",
        Route::Vote(..) => "PUT, OPTIONS",
        Route::Images => "GET, HEAD, POST, PUT, DELETE, OPTIONS",
        _ => "GET, HEAD, OPTIONS",
    }
}

/// Finds the route of a path, with or without its base (`/api`, `/api/fec2/{campus}`) and trailing slash.
pub fn find(path: &str) -> Route<'_> {
    let Some(path) = plain(path).strip_prefix('/') else { return Route::Nowhere };
    let (first, rest) = cut(path);
    match first {
        "products" => find_product(rest),
        "reviews" => find_review(rest),
        "qa" => find_question(rest),
        "admin" => find_admin(rest.unwrap_or("")),
        "pictures" => rest.filter(|name| !name.contains('/')).map_or(Route::Nowhere, Route::Picture),
        _ if rest.is_some() => Route::Nowhere,
        "cart" => Route::Cart,
        "interactions" => Route::Interactions,
        "images" => Route::Images,
        "recommendedImage" => Route::RecommendedImage,
        "openapi.json" => Route::Web(Page::Description),
        "docs" => Route::Web(Page::Docs),
        "healthz" => Route::Healthz,
        "readyz" => Route::Readyz,
        _ => Route::Nowhere,
    }
}

/// The first segment, and what follows its slash.
#[inline]
fn cut(path: &str) -> (&str, Option<&str>) {
    // Paths are short: nothing cleverer than a look at each byte pays.
    match path.bytes().position(|byte| byte == b'/') {
        Some(at) => (&path[..at], Some(&path[at + 1..])),
        None => (path, None),
    }
}

fn find_product(rest: Option<&str>) -> Route<'_> {
    let Some(rest) = rest else { return Route::Products };
    match cut(rest) {
        ("list", None) => Route::Products,
        (id, None) => Route::Product(id),
        (id, Some("styles")) => Route::Styles(id),
        (id, Some("related")) => Route::Related(id),
        _ => Route::Nowhere,
    }
}

fn find_review(rest: Option<&str>) -> Route<'_> {
    let Some(rest) = rest else { return Route::Reviews(None) };
    match cut(rest) {
        ("meta", None) => Route::Meta(None),
        (product, None) => Route::ReviewsOf(product),
        (product, Some("list")) => Route::Reviews(Some(product)),
        (product, Some("meta")) => Route::Meta(Some(product)),
        (id, Some("helpful")) => Route::Vote(Opinion::Review, Vote::Helpful, id),
        (id, Some("report")) => Route::Vote(Opinion::Review, Vote::Report, id),
        ("helpful", Some(id)) if !id.contains('/') => Route::Vote(Opinion::Review, Vote::Helpful, id),
        _ => Route::Nowhere,
    }
}

fn find_question(rest: Option<&str>) -> Route<'_> {
    let Some((first, rest)) = rest.map(cut) else { return Route::Nowhere };
    match (first, rest) {
        ("questions", None) => Route::Questions(None),
        (product, None) => Route::Questions(Some(product)),
        ("questions" | "question", Some(rest)) => match cut(rest) {
            (id, Some("answers")) => Route::Answers(id),
            (id, Some("helpful")) => Route::Vote(Opinion::Question, Vote::Helpful, id),
            (id, Some("report")) => Route::Vote(Opinion::Question, Vote::Report, id),
            _ => Route::Nowhere,
        },
        ("answers" | "answer", Some(rest)) => match cut(rest) {
            (id, Some("helpful")) => Route::Vote(Opinion::Answer, Vote::Helpful, id),
            (id, Some("report")) => Route::Vote(Opinion::Answer, Vote::Report, id),
            _ => Route::Nowhere,
        },
        (id, Some("answers")) => Route::Answers(id),
        _ => Route::Nowhere,
    }
}

fn find_admin(rest: &str) -> Route<'_> {
    let segments: Vec<&str> = rest.split('/').collect();
    admin::find(&segments).map_or(Route::Nowhere, Route::Admin)
}

/// A path without its base and trailing slash.
pub fn plain(path: &str) -> &str {
    strip_base(path.strip_suffix('/').unwrap_or(path))
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

/// Answers one request; returns with whose answers it is timed.
pub fn answer(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>) -> RouteGroup {
    let path = req.path();
    let route = find(&path);
    dispatch(site, req, rsp, route, &path);
    group(route, req.method())
}

fn group(route: Route<'_>, method: &str) -> RouteGroup {
    match route {
        Route::Products => RouteGroup::Products,
        Route::Product(_) => RouteGroup::Product,
        Route::Styles(_) => RouteGroup::Styles,
        Route::Related(_) => RouteGroup::Related,
        Route::Vote(..) => RouteGroup::Votes,
        Route::Reviews(_) | Route::ReviewsOf(_) | Route::Questions(_) | Route::Answers(_)
            if method == "POST" =>
        {
            RouteGroup::Posts
        }
        Route::Reviews(_) | Route::ReviewsOf(_) => RouteGroup::Reviews,
        Route::Meta(_) => RouteGroup::Meta,
        Route::Questions(_) => RouteGroup::Questions,
        Route::Answers(_) => RouteGroup::Answers,
        Route::Cart => RouteGroup::Cart,
        Route::Interactions => RouteGroup::Interactions,
        Route::Images | Route::RecommendedImage => RouteGroup::Images,
        Route::Picture(_) => RouteGroup::Pictures,
        Route::Admin(_) => RouteGroup::Admin,
        Route::Web(_) | Route::Healthz | Route::Readyz | Route::Nowhere => RouteGroup::Other,
    }
}

/// Answers a request of whoever runs this server, on a listener of its own.
pub fn answer_admin(site: &Site, req: &Request<'_, '_>, rsp: &mut Response<'_>) {
    if !matches!(req.method(), "GET" | "HEAD") {
        rsp.header("Allow: GET, HEAD");
        return Problem::method_not_allowed("GET, HEAD").write(site, req, rsp);
    }
    match &*req.path() {
        "/metrics" => health::metrics(site, rsp),
        "/healthz" => health::alive(rsp),
        "/readyz" => health::ready(site, rsp),
        "/status.json" => health::overview(site, rsp),
        "/" => drop(rsp.status_code(302, "Found").header("Location: /status/")),
        path if web::show_front(Front::status(), req, rsp, path) => {}
        _ => Problem::no_route().write(site, req, rsp),
    }
}

fn dispatch(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, route: Route<'_>, path: &str) {
    let (method, allow) = (req.method(), methods(route));
    let is_read = matches!(method, "GET" | "HEAD");
    if method == "OPTIONS" && (route != Route::Nowhere || path == "*") {
        return reply::write_options(site, req, rsp, allow);
    }
    if route == Route::Nowhere {
        if !is_read || !web::show_front(&site.front, req, rsp, path) {
            Problem::no_route().write(site, req, rsp);
        }
        return;
    }
    let is_allowed = match is_read {
        true => allow.starts_with("GET"),
        false => allow.split(", ").any(|allowed| allowed == method),
    };
    if !is_allowed {
        rsp.header(&format!("Allow: {allow}"));
        return Problem::method_not_allowed(allow).write(site, req, rsp);
    }
    if let Err(problem) = admit(site, req, route, is_read) {
        if problem.is_unauthorized() {
            rsp.header("WWW-Authenticate: Bearer");
        }
        return problem.write(site, req, rsp);
    }
    match is_read {
        true => show(site, req, rsp, route),
        false => change(site, req, rsp, route),
    }
}

/// Whether a request may go on: by its token, and by how often its address writes.
fn admit(site: &Site, req: &Request<'_, '_>, route: Route<'_>, is_read: bool) -> Result<(), Problem> {
    let needs_admin = match route {
        Route::Admin(_) => true,
        Route::Images => !is_read && !site.policy.images_are_open,
        _ => false,
    };
    if needs_admin && !site.policy.has_admin() {
        return Err(Problem::forbidden());
    }
    let admitted = match needs_admin {
        true => site.policy.admits_admin(req),
        false => is_open(route) || site.policy.admits(req),
    };
    if !admitted {
        return Err(Problem::unauthorized());
    }
    if is_read || needs_admin {
        return Ok(());
    }
    site.throttle.admit(req.client(), req.received_at_ns()).map_err(Problem::too_many_writes)
}

fn show(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, route: Route<'_>) {
    match route {
        Route::Products => products::list(site, req, rsp),
        Route::Product(id) => products::show(site, req, rsp, Kind::Product, id),
        Route::Styles(id) => products::show(site, req, rsp, Kind::Styles, id),
        Route::Related(id) => products::show(site, req, rsp, Kind::Related, id),
        Route::Reviews(product) => reviews::list(site, req, rsp, product),
        Route::Meta(product) => reviews::show_meta(site, req, rsp, product),
        Route::Questions(product) => questions::list(site, req, rsp, product),
        Route::Answers(question) => questions::list_answers(site, req, rsp, question),
        Route::Cart => cart::show(site, req, rsp),
        Route::Images => images::show(site, req, rsp),
        Route::RecommendedImage => images::recommend(site, req, rsp),
        Route::Admin(route) => admin::answer(site, req, rsp, route),
        Route::Picture(name) => pictures::show(site, req, rsp, name),
        Route::Web(page) => web::show(site, req, rsp, page),
        Route::Healthz => health::alive(rsp),
        Route::Readyz => health::ready(site, rsp),
        Route::ReviewsOf(_) | Route::Vote(..) | Route::Interactions | Route::Nowhere => {
            Problem::no_route().write(site, req, rsp);
        }
    }
}

fn change(site: &Site, req: &mut Request<'_, '_>, rsp: &mut Response<'_>, route: Route<'_>) {
    match route {
        Route::Reviews(product) => reviews::add(site, req, rsp, product),
        Route::ReviewsOf(product) => reviews::add(site, req, rsp, Some(product)),
        Route::Vote(opinion, vote, id) => reviews::vote(site, req, rsp, opinion, vote, id),
        Route::Questions(_) => questions::add(site, req, rsp),
        Route::Answers(question) => questions::add_answer(site, req, rsp, question),
        Route::Cart => cart::add(site, req, rsp),
        Route::Interactions => cart::add_interaction(site, req, rsp),
        Route::Images => images::edit(site, req, rsp),
        Route::Admin(route) => admin::answer(site, req, rsp, route),
        _ => Problem::no_route().write(site, req, rsp),
    }
}

/// Routes that no token guards: an `<img>` can't send one, nor can a load balancer's check.
fn is_open(route: Route<'_>) -> bool {
    matches!(route, Route::Picture(_) | Route::Web(_) | Route::Healthz | Route::Readyz | Route::Nowhere)
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
    fn every_path_of_the_table_leads_somewhere_else() {
        let routes: Vec<Route<'_>> = PATHS.iter().map(|path| find(path)).collect();
        for (n, route) in routes.iter().enumerate() {
            assert_ne!(*route, Route::Nowhere, "{}", PATHS[n]);
            assert!(!routes[..n].contains(route), "{}", PATHS[n]);
        }
        for (alias, path) in ALIASES {
            assert_ne!(find(alias), Route::Nowhere, "{alias}");
            assert!(PATHS.contains(path), "{path}");
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
