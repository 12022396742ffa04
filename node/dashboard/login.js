// Owns the way in: asks the node whether it wants to know who one is, and shows a form until it does. A password goes to the
// node and nowhere else; the session is a cookie that no script can read.

import { h, setText } from './dom.js';

/** Resolves once the page may ask for data. `place` holds the form meanwhile; `out` becomes the button that logs out. */
export async function enter(place, out) {
  const who = await session();
  if (!who.authentication) return;
  if (!who.user) await form(place);
  out.hidden = false;
  const { user, role } = await session();
  out.title = `Log out ${user ?? ''} (${role ?? ''})`;
  out.setAttribute('aria-label', out.title);
  out.addEventListener('click', async () => {
    await fetch('/api/logout', { method: 'POST' });
    location.reload();
  });
}

/** A node that does not answer is the feed's to tell. */
async function session() {
  try {
    const response = await fetch('/api/session', { cache: 'no-store' });
    return response.ok ? await response.json() : {};
  } catch { return {}; }
}

function form(place) {
  return new Promise((entered) => {
    const user = h('input', { name: 'user', autocomplete: 'username', required: true, 'data-testid': 'login-user' });
    const password = h('input', { name: 'password', type: 'password', autocomplete: 'current-password', required: true, 'data-testid': 'login-password' });
    const button = h('button.login-button', { type: 'submit', 'data-testid': 'login-button' }, 'Log in');
    const wrong = h('p.login-wrong', { role: 'alert', 'data-testid': 'login-wrong', hidden: true });
    const submit = async (event) => {
      event.preventDefault();
      button.disabled = true;
      const problem = await logIn(user.value, password.value);
      button.disabled = false;
      if (problem === null) { element.remove(); entered(); return; }
      wrong.hidden = false;
      setText(wrong, problem);
      password.value = '';
      password.focus();
    };
    const element = h('form.login', { onsubmit: submit, 'data-testid': 'login' }, h('h1', null, 'Log in'),
      h('label', null, 'User', user), h('label', null, 'Password', password), wrong, button,
      h('p.quiet', null, 'Users are made on the node: ', h('code', null, 'tidegate user add NAME --role viewer')));
    place.replaceChildren(element);
    user.focus();
  });
}

/** `null`, or what is wrong. A user who may not read would see an empty page, and is told instead. */
async function logIn(user, password) {
  try {
    const response = await fetch('/api/login', { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ user, password }) });
    const answer = await response.json();
    if (!response.ok) return typeof answer.detail === 'string' ? answer.detail : `HTTP ${response.status}`;
    if (['viewer', 'operator', 'admin'].includes(answer.role)) return null;
    await fetch('/api/logout', { method: 'POST' });
    return `${answer.user} has the role ${answer.role}; the dashboard needs viewer, operator or admin`;
  } catch { return 'The node does not answer.'; }
}
