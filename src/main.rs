fn main() {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let p = std::env::args().nth(1).unwrap();
    if let Err(e) = rt.block_on(splitway::app::run(p.as_ref(), true, splitway::app::stop_signal(), |_| {})) { eprintln!("{e}"); std::process::exit(2) }
}
