//! A second reader, as simple as can be: lines, splits, and no table. It only has to
//! confirm what was refused, so every refusal of it is a doubt.

use filter_common::number::Number;

/// Returns whether a message is for sure an initial INVITE whose `From` names the caller `number`, in a
/// form of the default plan.
///
/// # Errors
/// The doubt.
pub fn is_call_from(message: &[u8], number: Number) -> Result<(), String> {
    let head = head(message)?;
    let (uri, behind) = address(&head.from)?;
    parameters(&behind)?;
    let digits = digits(&uri)?.ok_or("From is a name")?;
    is_number(&digits, number)
}

/// Returns whether a message is for sure an initial INVITE of which `P-Asserted-Identity` names only callers
/// that are blocked, in forms of the default plan. `From` may say anything.
///
/// # Errors
/// The doubt.
pub fn is_asserted_call(message: &[u8], blocked: &[Number]) -> Result<(), String> {
    let head = head(message)?;
    let values: Vec<_> = head.asserted.iter().flat_map(|line| values(line)).collect();
    if values.len() > 2 {
        return Err("more than two identities".into());
    }
    let mut numbers = 0;
    for value in values {
        let (uri, behind) = address(&value)?;
        parameters(&behind)?;
        // A name does not count beside a number.
        let Some(digits) = digits(&uri)? else { continue };
        numbers += 1;
        if !blocked.iter().any(|number| is_number(&digits, *number).is_ok()) {
            return Err(format!("{digits} is not blocked"));
        }
    }
    if numbers == 0 { Err("no number".into()) } else { Ok(()) }
}

/// The header fields that matter of an initial INVITE.
struct Head {
    from: String,
    asserted: Vec<String>,
}

/// Reads the headers of an initial INVITE that replaces no other call.
fn head(message: &[u8]) -> Result<Head, String> {
    let mut message = message;
    while let Some(rest) = message.strip_prefix(b"\r\n") {
        message = rest;
    }
    // An LF alone is a line end, a CR alone is not.
    let text = String::from_utf8_lossy(message).replace("\r\n", "\n");
    let (head, _) = text.split_once("\n\n").ok_or("the headers do not end")?;
    if head.contains('\r') {
        return Err("a bare CR".into());
    }
    let head = head.replace("\n ", " ").replace("\n\t", " ");
    let mut lines = head.split('\n');
    let words: Vec<_> = lines.next().unwrap_or("").split(' ').collect();
    match words[..] {
        ["INVITE", uri, version] if !uri.is_empty() && version.eq_ignore_ascii_case("SIP/2.0") => {}
        _ => return Err("no request line".into()),
    }
    let (mut from, mut to, mut call_id) = (Vec::new(), Vec::new(), Vec::new());
    let mut asserted = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or("a line without a colon")?;
        match name.trim_end().to_ascii_lowercase().as_str() {
            "from" | "f" => from.push(value.trim().to_owned()),
            "to" | "t" => to.push(value.trim()),
            "call-id" | "i" => call_id.push(value.trim()),
            "p-asserted-identity" => asserted.push(value.trim().to_owned()),
            "replaces" => return Err("a call that replaces another".into()),
            _ => {}
        }
    }
    let ([from], [to], [call_id]) = (&from[..], &to[..], &call_id[..]) else {
        return Err("not one From, To and Call-ID".into());
    };
    if call_id.is_empty() {
        return Err("an empty Call-ID".into());
    }
    let (_, behind) = address(to)?;
    for (name, value) in parameters(&behind)? {
        if name.eq_ignore_ascii_case("tag") && !value.is_empty() {
            return Err("a To-tag".into());
        }
    }
    Ok(Head { from: from.clone(), asserted })
}

/// Returns whether these digits, with the `+`, are a form of the number under the default plan.
fn is_number(digits: &str, number: Number) -> Result<(), String> {
    let expected = number.to_string();
    let readings = [digits.to_owned(), digits.replacen('+', "", 1), digits.replacen('0', "62", 1)];
    if !readings.contains(&expected) {
        return Err(format!("{digits} is not {expected}"));
    }
    if digits.replacen('0', "62", 1) == expected && !digits.starts_with('0') && digits != expected {
        return Err(format!("{digits} only looks like {expected}"));
    }
    Ok(())
}

/// Splits a list at the commas outside quotes and angle brackets.
fn values(list: &str) -> Vec<String> {
    let (mut values, mut quoted, mut escaped, mut angled) =
        (vec![String::new()], false, false, false);
    for c in list.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if !angled => quoted = !quoted,
            '<' | '>' if !quoted => angled = c == '<',
            ',' if !quoted && !angled => {
                values.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(value) = values.last_mut() {
            value.push(c);
        }
    }
    // Nobody is named between two commas.
    values.iter().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty()).collect()
}

/// Returns the URI of a `name-addr` or `addr-spec`, and what is after it.
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
    // White space ends a bare URI (RFC 3966 §3 has none), so a parameter after it is the header's.
    let attached = rest[end..].split([' ', '\t']).next().unwrap_or_default();
    let mut names = attached.split(';').map(|each| each.split('=').next().unwrap_or(each));
    // A context says nothing of a number with a `+`.
    let global = rest[..end].get(4..).is_some_and(|number| number.starts_with('+'));
    let ambiguous = if global { &["ext", "isub"][..] } else { &["ext", "isub", "phone-context"] };
    let is_of_the_number = |name: &str| ambiguous.iter().any(|one| name.eq_ignore_ascii_case(one));
    if rest.to_ascii_lowercase().starts_with("tel:") && names.any(is_of_the_number) {
        return Err("a parameter of the header or of the number".into());
    }
    Ok((rest[..end].to_owned(), rest[end..].to_owned()))
}

/// Returns names and values of the parameters after an address, without white space. A quoted value begins
/// right after its `=`.
fn parameters(text: &str) -> Result<Vec<(String, String)>, String> {
    let (mut all, mut quoted, mut escaped, mut last) = (String::new(), false, false, ' ');
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if quoted => quoted = false,
            '"' if last == '=' => quoted = true,
            '"' => return Err("a quote without a place".into()),
            ';' if !quoted => all.push('\n'),
            _ => all.push(if quoted { '_' } else { c }),
        }
        if !c.is_ascii_whitespace() {
            last = c;
        }
    }
    if quoted {
        return Err("an open quote in a parameter".into());
    }
    let pairs = all.split('\n').skip(1).map(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        (name.trim().to_owned(), value.trim().to_owned())
    });
    Ok(pairs.collect())
}

/// Returns the digits of a URI's user part, with the `+` and without separators; `None`: it is for sure
/// no number.
fn digits(uri: &str) -> Result<Option<String>, String> {
    let (scheme, rest) = uri.split_once(':').ok_or("no scheme")?;
    // A name begins with a letter. Any other text may be a number that is written in an odd way.
    let mut begin = rest.to_ascii_lowercase();
    for separator in ["%2d", "%2e", "%28", "%29"] {
        begin = begin.replace(separator, "-");
    }
    let begin = begin.trim_start_matches(['-', '.', '(', ')']);
    let is_name = begin.starts_with(|c: char| c.is_ascii_alphabetic() || c == '@');
    if is_name && ["sip", "sips", "tel"].contains(&&*scheme.to_ascii_lowercase()) {
        return Ok(None);
    }
    let user = match scheme.to_ascii_lowercase().as_str() {
        "sip" | "sips" => match rest.split_once('@') {
            Some((user, _)) => user,
            None => return Err("no user".into()),
        },
        "tel" => rest,
        _ => return Err(format!("scheme {scheme}")),
    };
    let (user, behind) = user.split_at(user.find([';', ':']).unwrap_or(user.len()));
    let mut contexts = Vec::new();
    for parameter in behind.split(';').skip(1) {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        match decoded(name)?.to_ascii_lowercase().as_str() {
            "phone-context" => contexts.push(value),
            "ext" | "isub" if parameter.contains('=') => return Err("an extension".into()),
            _ if name.contains('%') => return Err("an escaped name".into()),
            _ => {}
        }
    }
    match contexts[..] {
        [] => {}
        // A context says nothing of a number with a `+`, however many there are.
        _ if user.starts_with(['+', '%']) => {}
        ["+62"] if user.starts_with('0') => {}
        ["+62"] => return digits(&format!("sip:0{user}@")),
        _ => return Err("a phone-context that no plan reads".into()),
    }
    let mut text = decoded(user)?;
    text.retain(|c| !"-.()".contains(c));
    let plain = text.strip_prefix('+').unwrap_or(&text);
    let is_number = !plain.is_empty() && plain.chars().all(|c| c.is_ascii_digit());
    match is_number {
        true => Ok(Some(text)),
        false => Err(format!("{text} is no number")),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let mut decoded = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '%' {
            let hex: String = chars.by_ref().take(2).collect();
            let byte = u8::from_str_radix(&hex, 16).map_err(|_| "a bad escape")?;
            decoded.push(char::from(byte));
        } else {
            decoded.push(c);
        }
    }
    Ok(decoded)
}
