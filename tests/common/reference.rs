//! A second reader, as simple as can be: lines, splits, and no table. It only has to
//! confirm what was refused, so each oddity is a doubt.

use filter_common::number::Number;

/// Returns whether a message is for sure an initial INVITE whose caller is `number`, in a form
/// of the default plan.
///
/// # Errors
/// The doubt.
pub fn is_call_from(message: &[u8], number: Number) -> Result<(), String> {
    let mut message = message;
    while let Some(rest) = message.strip_prefix(b"\r\n") {
        message = rest;
    }
    let end = message
        .windows(4)
        .position(|bytes| bytes == b"\r\n\r\n")
        .ok_or("the headers do not end")?;
    let head = String::from_utf8_lossy(&message[..end]).into_owned();
    if head.replace("\r\n", "").contains(['\r', '\n']) {
        return Err("a bare CR or LF".into());
    }
    let head = head.replace("\r\n ", " ").replace("\r\n\t", " ");
    let mut lines = head.split("\r\n");
    let words: Vec<_> = lines.next().unwrap_or("").split(' ').collect();
    match words[..] {
        ["INVITE", uri, version] if !uri.is_empty() && version.eq_ignore_ascii_case("SIP/2.0") => {}
        _ => return Err("no request line".into()),
    }
    let (mut from, mut to, mut call_id) = (Vec::new(), Vec::new(), Vec::new());
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        match name.trim_end().to_ascii_lowercase().as_str() {
            "from" | "f" => from.push(value.trim()),
            "to" | "t" => to.push(value.trim()),
            "call-id" | "i" => call_id.push(value.trim()),
            _ => {}
        }
    }
    let ([from], [to], [call_id]) = (&from[..], &to[..], &call_id[..]) else {
        return Err("not one From, To and Call-ID".into());
    };
    if call_id.is_empty() {
        return Err("an empty Call-ID".into());
    }
    let (_, parameters) = address(to)?;
    for parameter in outside_quotes(&parameters).split(';').skip(1) {
        if let Some((name, value)) = parameter.split_once('=')
            && name.trim().eq_ignore_ascii_case("tag")
            && !value.trim().is_empty()
        {
            return Err("a To-tag".into());
        }
    }
    let (uri, _) = address(from)?;
    let digits = digits(&uri)?;
    let expected = number.to_string();
    let readings = [digits.clone(), digits.replacen('+', "", 1), digits.replacen('0', "62", 1)];
    if !readings.contains(&expected) {
        return Err(format!("{digits} is not {expected}"));
    }
    if digits.replacen('0', "62", 1) == expected && !digits.starts_with('0') && digits != expected {
        return Err(format!("{digits} only looks like {expected}"));
    }
    Ok(())
}

/// Returns the URI of a `name-addr` or `addr-spec`, and the text after it.
fn address(value: &str) -> Result<(String, String), String> {
    let mut rest = value;
    if rest.starts_with('"') {
        let mut escaped = false;
        let end = rest[1..]
            .char_indices()
            .find(|(_, c)| {
                let end = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                end
            })
            .ok_or("an open quote")?
            .0;
        rest = rest[end + 2..].trim_start();
        if !rest.starts_with('<') {
            return Err("no < behind the quoted name".into());
        }
    }
    if let Some((name, behind)) = rest.split_once('<') {
        if name.contains(['"', ';', ',', '@', ':']) {
            return Err("an odd display name".into());
        }
        let (uri, behind) = behind.split_once('>').ok_or("no >")?;
        return Ok((uri.to_owned(), behind.to_owned()));
    }
    let end = rest.find([';', ' ', '\t']).unwrap_or(rest.len());
    Ok((rest[..end].to_owned(), rest[end..].to_owned()))
}

fn outside_quotes(text: &str) -> String {
    text.split('"').step_by(2).collect()
}

/// Returns the digits of a URI's user part, with the `+` and without separators.
fn digits(uri: &str) -> Result<String, String> {
    let (scheme, rest) = uri.split_once(':').ok_or("no scheme")?;
    let user = match scheme.to_ascii_lowercase().as_str() {
        "sip" | "sips" => rest.split_once('@').ok_or("no user")?.0,
        "tel" => rest,
        _ => return Err(format!("scheme {scheme}")),
    };
    let (user, parameters) = user.split_at(user.find([';', ':']).unwrap_or(user.len()));
    let mut contexts = parameters.split(';').filter_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.eq_ignore_ascii_case("phone-context").then_some(value)
    });
    match (contexts.next(), contexts.next()) {
        (None, _) => {}
        (Some(_), None) if user.starts_with(['+', '%']) => {}
        (Some("+62"), None) if user.starts_with('0') => {}
        (Some("+62"), None) => return digits(&format!("sip:0{user}@")),
        _ => return Err("a phone-context that no plan reads".into()),
    }
    let mut decoded = String::new();
    let mut chars = user.chars();
    while let Some(c) = chars.next() {
        if c == '%' {
            let hex: String = chars.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&hex, 16).map_err(|_| "a bad escape")?;
            decoded.push(char::from(byte));
        } else {
            decoded.push(c);
        }
    }
    decoded.retain(|c| !"-.()".contains(c));
    let plain = decoded.strip_prefix('+').unwrap_or(&decoded);
    if plain.is_empty() || !plain.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("{decoded} is no number"));
    }
    Ok(decoded)
}
