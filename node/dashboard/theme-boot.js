// Sets the theme before the first paint; theme.js owns everything after that.
// A classic script, because a module would run after the page was painted in the wrong colours.
(function () {
  var choice = null;
  try { choice = localStorage.getItem('tidegate.theme'); } catch (e) { /* storage is forbidden: follow the system */ }
  var dark = choice === 'dark' || (choice !== 'light' && matchMedia('(prefers-color-scheme: dark)').matches);
  document.documentElement.dataset.theme = dark ? 'dark' : 'light';
})();
