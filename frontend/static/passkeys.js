// passkeys.js: a form with data-passkey asks the browser for a passkey and posts what it answers.
//   data-passkey="create|get"   make a passkey, or prove that one is here
//   data-passkey-options="id"   the JSON that the server put into the page; or
//   data-passkey-from="/path"   where to fetch it
//   data-unsupported, data-cancelled, data-known, data-failed   what to say then, in [data-passkey-error]
(() => {
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");
  const withBytes = (list) => (list || []).map((one) => ({ ...one, id: bytes(one.id) }));

  const readOptions = (json) => {
    const options = { ...json.publicKey, challenge: bytes(json.publicKey.challenge) };
    if (options.user) options.user = { ...options.user, id: bytes(options.user.id) };
    if (options.excludeCredentials) options.excludeCredentials = withBytes(options.excludeCredentials);
    if (options.allowCredentials) options.allowCredentials = withBytes(options.allowCredentials);
    return options;
  };
  // Alone it has to be found without a name, and its owner has to be checked.
  const alone = (options, wanted) => {
    const selection = { ...options.authenticatorSelection, residentKey: wanted ? "required" : "discouraged", requireResidentKey: wanted };
    if (wanted) selection.userVerification = "required";
    return { ...options, authenticatorSelection: selection };
  };
  const writeCredential = (credential) => {
    const response = {};
    for (const name of ["clientDataJSON", "attestationObject", "authenticatorData", "signature", "userHandle"]) {
      if (credential.response[name]) response[name] = text(credential.response[name]);
    }
    if (credential.response.getTransports) response.transports = credential.response.getTransports();
    return JSON.stringify({
      id: credential.id, rawId: text(credential.rawId), type: credential.type, response,
      authenticatorAttachment: credential.authenticatorAttachment, clientExtensionResults: credential.getClientExtensionResults(),
    });
  };

  const optionsOf = async (form) => {
    if (form.dataset.passkeyOptions) return JSON.parse(document.getElementById(form.dataset.passkeyOptions).textContent);
    const answer = await fetch(form.dataset.passkeyFrom, { headers: { Accept: "application/json" } });
    if (!answer.ok) throw new TypeError(answer.status);
    return (await answer.json()).request_options;
  };
  const ask = async (form) => {
    const options = readOptions(await optionsOf(form));
    const box = form.elements.passwordless;
    if (form.dataset.passkey === "get") return navigator.credentials.get({ publicKey: options });
    return navigator.credentials.create({ publicKey: box ? alone(options, box.checked) : options });
  };
  const say = (form, words) => {
    const place = form.querySelector("[data-passkey-error]");
    place.textContent = words;
    place.hidden = !words;
  };
  const wordsFor = (form, error) => {
    if (error.name === "InvalidStateError") return form.dataset.known;
    if (error.name === "SecurityError") return form.dataset.unsupported;
    return error instanceof TypeError ? form.dataset.failed : form.dataset.cancelled;
  };

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.dataset.passkey || form.elements.credential.value) return;
    event.preventDefault();
    const button = form.querySelector("button");
    say(form, window.PublicKeyCredential ? "" : form.dataset.unsupported);
    if (!window.PublicKeyCredential) return;
    button.disabled = true;
    try {
      form.elements.credential.value = writeCredential(await ask(form));
      form.submit();
    } catch (error) {
      say(form, wordsFor(form, error));
      button.disabled = false;
    }
  });
})();
